"""SOCI indexes, read and written compatibly: zTOC 0.9, checkpoints, spans, index manifests, prefetch artifacts.

Formats: the public repository awslabs/soci-snapshotter (`ztoc/fbs/ztoc.fbs`, `ztoc/compression/gzip_zinfo.h`,
`docs/index.md`). Nothing here opens a file or a socket: bytes and file objects are given.
"""
