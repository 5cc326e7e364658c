"""Tasks' networks on one host: a pair of interfaces each, routes by policy, shares by class."""
