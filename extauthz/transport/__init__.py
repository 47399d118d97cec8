"""What listens: the ext_authz transport and the ops listener."""
