// The OpenID provider that the end-to-end tests run: oidc-provider, each of its issuers as the settings in a file say.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import Provider from 'oidc-provider';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));

for (const { port, issuer, keys, resources } of settings.issuers) {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: settings.clients,
    cookies: { keys: [settings.cookie_key] },
    scopes: ['openid', 'email'],
    claims: { openid: ['sub'], email: ['email', 'email_verified'] },
    pkce: { required: () => true },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...settings.users[id] }) }),
    extraTokenClaims: (_, token) => settings.users[token.accountId],
    features: {
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      jwtIntrospection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => resources[resource],
        useGrantedResource: () => true,
      },
      revocation: { enabled: true },
    },
  });
  const tls = { cert: readFileSync(settings.certificate), key: readFileSync(settings.key) };
  createServer(tls, provider.callback()).listen(port, '127.0.0.1');
}
