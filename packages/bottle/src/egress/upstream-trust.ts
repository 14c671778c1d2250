import { readFileSync } from 'node:fs';
import { createSecureContext, rootCertificates, type SecureContext } from 'node:tls';

/** Where systems keep the authorities they trust, in one file: Debian and Alpine, Fedora, SUSE, and OpenSSL's own place. */
const SYSTEM_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
] as const;

/** What upstream certificates are verified with: the system's authorities, or those that Node brings where it has none; and the operator's. */
export function upstreamTrust(extraPem: string | undefined): SecureContext {
  const system = systemBundle();
  const ca = [...(system === undefined ? rootCertificates : [system]), ...(extraPem === undefined ? [] : [extraPem])];
  return createSecureContext({ ca, minVersion: 'TLSv1.2' });
}

function systemBundle(): string | undefined {
  for (const path of SYSTEM_BUNDLES) {
    try {
      const text = readFileSync(path, 'utf8');
      if (text.includes('-----BEGIN CERTIFICATE-----')) return text;
    } catch {
      // Not this one.
    }
  }
  return undefined;
}
