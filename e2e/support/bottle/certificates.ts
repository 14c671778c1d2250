import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** An authority and one certificate for all the names, in PEM. The authority is also written to `ca.pem` in the folder. */
export function makeCertificates(
  folder: string,
  names: readonly string[],
): { readonly authority: string; readonly certificate: string; readonly key: string } {
  const at = (name: string) => join(folder, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl(
    'req',
    '-x509',
    ...ec,
    '-keyout',
    at('ca.key'),
    '-out',
    at('ca.pem'),
    '-days',
    '2',
    '-subj',
    '/CN=Internet of the tests',
    '-addext',
    'basicConstraints=critical,CA:TRUE',
  );
  openssl('req', ...ec, '-keyout', at('leaf.key'), '-out', at('leaf.csr'), '-subj', '/CN=leaf');
  writeFileSync(at('leaf.ext'), `subjectAltName=${names.map((name) => `DNS:${name}`).join()}\n`);
  openssl(
    'x509',
    '-req',
    '-in',
    at('leaf.csr'),
    '-CA',
    at('ca.pem'),
    '-CAkey',
    at('ca.key'),
    '-CAcreateserial',
    '-days',
    '2',
    '-extfile',
    at('leaf.ext'),
    '-out',
    at('leaf.pem'),
  );
  const [authority, certificate, key] = ['ca.pem', 'leaf.pem', 'leaf.key'].map((name) =>
    readFileSync(at(name), 'utf8'),
  );
  return { authority: authority ?? '', certificate: certificate ?? '', key: key ?? '' };
}
