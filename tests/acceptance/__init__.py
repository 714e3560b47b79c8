"""The real daemons, as processes of their own, as users meet them."""
