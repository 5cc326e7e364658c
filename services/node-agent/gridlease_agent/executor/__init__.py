"""The small process that is root, and how the agent's core, which is not, asks it.

``verbs`` is the table of all that may be asked. ``server`` answers, ``client`` asks, ``codec``
and ``frames`` are the wire between them, ``guard`` refuses what a core that was taken over might
ask. ``parent`` starts both and keeps both alive; ``cover`` gives the core its view of the files.
"""
