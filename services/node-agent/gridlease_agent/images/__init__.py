"""OCI images: named, pulled and checked by digest, unpacked ahead, kept while they are used."""
