"""A read-only FUSE file system spoken directly on `/dev/fuse`, whose descriptor may outlive the process.

`mount.mount` makes the mount, `server.FuseServer` answers the kernel from a `filesystem.FileSystem`.
"""
