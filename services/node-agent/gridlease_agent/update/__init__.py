"""The agent replaces itself: two slots, a signed release, a trial, and a way back (docs/update.md).

``manifest`` says whether a release may be taken, ``slots`` keeps the folders and the record,
``gate`` says whether a new agent does well, ``runner`` starts agents and switches between them.
"""
