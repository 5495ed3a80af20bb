"""What the commands `kernel rabbitmq ...` do. In: the tables of a manifest. Out: text. First read: `commands`."""
