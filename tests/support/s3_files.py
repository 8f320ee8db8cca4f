"""The object store of the tests as a file system, by a client that is not ours."""

import s3fs

from deployments.embedded.object_stores import ObjectStoreAddress


def open_s3(address: ObjectStoreAddress) -> s3fs.S3FileSystem:
    """The store as it is now: nothing is remembered of what was there before."""
    return s3fs.S3FileSystem(
        key=address.access_key_id,
        secret=address.secret_access_key,
        endpoint_url=address.endpoint_url,
        use_listings_cache=False,
        skip_instance_cache=True,
    )
