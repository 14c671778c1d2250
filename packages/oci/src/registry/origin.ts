import { DecantError } from '@decant/core';

import { DOCKER_HUB } from '../reference.ts';

/** Whether a host name is this machine itself. */
function isLoopback(hostname: string): boolean {
  return hostname === 'localhost' || hostname === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(hostname);
}

/** Where the API of a registry answers: https, and plain http on this machine. */
export function originOf(registry: string): URL {
  if (registry === DOCKER_HUB) return new URL('https://registry-1.docker.io');
  const https = new URL(`https://${registry}`);
  return isLoopback(https.hostname) ? new URL(`http://${registry}`) : https;
}

/**
 * A URL that a registry sends us to. It must be https; only a registry that itself answers on plain http on
 * this machine may name another such address, so that a remote one cannot make us talk to local services in
 * the clear. @throws HTTP_BODY_INVALID
 */
export function allowedTarget(text: string, base: URL, what: string): URL {
  const url = URL.canParse(text, base.href) ? new URL(text, base) : undefined;
  const fine =
    url !== undefined &&
    (url.origin === base.origin ||
      (url.protocol === 'https:' && !isLoopback(url.hostname)) ||
      (base.protocol === 'http:' && /^https?:$/.test(url.protocol) && isLoopback(url.hostname)));
  if (!fine) {
    const where = url === undefined ? 'something that is no URL' : `${url.protocol}//${url.host}`;
    throw new DecantError('HTTP_BODY_INVALID', `${base.host} sends to ${where} for ${what}, which is not allowed.`, {
      details: { host: base.host },
      retryable: false,
      hint: 'A registry may send to https addresses only.',
    });
  }
  url.hash = '';
  url.username = '';
  url.password = '';
  return url;
}
