"""Pick the manifests out of a listing, and tell owners of what else there is."""

from collections.abc import Collection, Iterator, Sequence

from blocks.buckets.protocol import Entry
from flows.finding.sources import Source


class SourceListing:
    """Go through the keys that begin with a source's prefix, a page at a time."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._is_empty = True
        self._results = 0
        self._misnamed = 0
        self._misnamed_example = ""
        self._folder_beside: str | None = None

    def manifests_of(self, page: Sequence[Entry], results: Collection[str]) -> list[Entry]:
        """Return the manifests of a page; the keys in `results` are Refinery's own deliveries."""
        # A store that folds slashes lists `in/` when it is asked for `/in/`.
        prefix = self._source.prefix
        self._is_empty = self._is_empty and not any(e.key.startswith(prefix) for e in page)
        self._results += len(results)
        manifests = []
        for entry in page:
            if entry.key in results:
                continue
            if self._source.is_manifest(entry.key):
                manifests.append(entry)
                beside = self._source.folder_beside(entry.key)
                self._folder_beside = self._folder_beside or beside
            elif self._source.is_passed_over(entry.key):
                self._misnamed += 1
                self._misnamed_example = self._misnamed_example or entry.key
        return manifests

    def notes(self) -> list[str]:
        """Return what an owner has to be told, as sentences without full stops.

        Raises:
            InvalidSource: nothing was found, and nothing ever will be.
        """
        return [self._source.check_empty()] if self._is_empty else list(self._found())

    def _found(self) -> Iterator[str]:
        if self._misnamed:
            yield (
                f"{self._misnamed} passed over, such as {self._misnamed_example}: "
                f"no name ends with one of find.suffixes ({', '.join(self._source.suffixes)})"
            )
        if self._results:
            yield f"{self._results} passed over: results of Refinery's own"
        if self._folder_beside:
            yield (
                f"the source {self._source.template!r} has no slash at its end, so it takes "
                f"{self._folder_beside} too"
            )
