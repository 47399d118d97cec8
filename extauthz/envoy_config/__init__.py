"""The Envoy configuration that fits a configuration of extauthz."""
