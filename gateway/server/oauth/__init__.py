"""OAuth 2: access tokens of trusted issuers. Imported only where `auth` asks for it."""
