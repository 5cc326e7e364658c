"""The static keeper: C sources, built by ``build`` at first need on the host that runs them."""
