"""The client library of HarpCaller."""
