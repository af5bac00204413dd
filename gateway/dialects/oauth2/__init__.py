"""OAuth 2 as documents: tokens, keys and metadata, read and judged without ever waiting. One file per RFC."""
