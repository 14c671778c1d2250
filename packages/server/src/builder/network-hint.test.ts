import { describe, expect, it } from 'vitest';

import { saysNoNetwork } from './network-hint.ts';

describe('a step without a network', () => {
  it.each([
    "W: Failed to fetch http://deb.debian.org/debian/dists/bookworm/InRelease  Temporary failure resolving 'deb.debian.org'",
    'curl: (6) Could not resolve host: example.com',
    "wget: bad address 'example.com'",
    "wget: can't connect to remote host (93.184.216.34): Network is unreachable",
    'npm error request to https://registry.npmjs.org/x failed, reason: getaddrinfo EAI_AGAIN registry.npmjs.org',
    "fatal: unable to access 'https://github.com/x/y/': Could not resolve host: github.com",
    'socket.gaierror: [Errno -3] Temporary failure in name resolution',
    'go: example.com/x@v1: Get "https://proxy.golang.org": dial tcp: lookup proxy.golang.org on [::1]:53: read: connection refused',
    ';; connection timed out; no servers could be reached',
    'WARNING: fetching https://dl-cdn.alpinelinux.org/x: temporary error (try again later)',
  ])('says so: %s', (line) => {
    expect(saysNoNetwork(line)).toBe(true);
  });

  it.each(['make: *** [all] Error 2', 'resolved 42 packages', 'error: cannot resolve symbol main', 'x'.repeat(1e6)])(
    'is not what %.40s tells of',
    (line) => {
      expect(saysNoNetwork(line)).toBe(false);
    },
  );
});
