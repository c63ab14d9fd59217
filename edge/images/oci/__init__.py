"""Images as registries and layouts hold them: references, documents, credentials, the registry client.

Formats: the OCI distribution specification 1.1 and image specification 1.1; Podman's own files for credentials
(containers-auth.json(5)) and registries (containers-registries.conf(5)).
"""
