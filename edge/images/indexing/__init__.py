"""SOCI indexes of whole images: built, pushed, shown and verified, from a registry or an OCI layout."""
