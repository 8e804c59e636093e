"""What every test lives under; the rules themselves stand in tests/plugins, one module each."""

pytest_plugins = [
    "plugins.blocking",
    "plugins.canaries",
    "plugins.dist",
    "plugins.properties",
    "plugins.skips",
    "stack",
]
