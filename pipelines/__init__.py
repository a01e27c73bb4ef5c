"""One experiment each, read like a methods section; nothing imports them."""
