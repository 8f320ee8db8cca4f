"""The contract of a bucket over GCS, against an emulator."""

import json
from urllib.parse import quote

import httpx
import pytest

from blocks.buckets import Bucket, open_bucket
from blocks.credentials import GcsCredentials
from blocks.egress import Egress
from blocks.errors import InvalidCredentials, ObjectChanged, Transient
from blocks.object_urls import StoreType
from deployments.ports import free_port
from tests.integration.bucket_contract import BucketContract

pytestmark = pytest.mark.integration
