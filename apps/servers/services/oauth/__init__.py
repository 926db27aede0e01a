"""Switchyard as an OAuth 2.1 client of the servers behind it: discovery, registration, authorization, tokens and their refreshing.

The rules are those of MCP's section on authorization, by the helpers of the official SDK's client (`mcp.client.auth`) where it has them.
"""
