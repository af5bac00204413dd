import { Provider } from 'oidc-provider';
const [port, gateway] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const provider = new Provider(issuer, {
  clients: [
    { client_id: 'the-gateway', client_secret: 'secret-of-the-gateway', redirect_uris: [`${gateway}/oauth/callback`],
      grant_types: ['authorization_code'], response_types: ['code'] },
    { client_id: 'robot', client_secret: 'secret-of-the-robot', redirect_uris: [], response_types: [],
      grant_types: ['client_credentials'] },
  ],
  claims: { openid: ['sub'] },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    dPoP: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => undefined,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        scope: 'use', audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
});
provider.listen(Number(port), '127.0.0.1', () => console.log('ready'));
