import type { TrustFile } from '../fence/fence.ts';
import { PROXY_PORT } from '../fence/ports.ts';

/** Our certificate alone, for programs that add to what they trust already. */
const OWN_FILE = '/etc/decant/ca.pem';
/** The image's authorities and ours, for programs that trust one file only. */
const BUNDLE_FILE = '/etc/decant/ca-bundle.pem';
/** Where images keep their authorities: Debian and Alpine, Fedora, SUSE, OpenSSL's own place. */
const IMAGE_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
] as const;
/** A bundle has some 250 KiB. What is larger is none, and is left alone. */
const MOST_BUNDLE_BYTES = 4 * 1024 * 1024;

/**
 * Proxy and trust variables. Both spellings of the proxy's, because curl reads only the lower case of `http_proxy` and others only the
 * upper case. Loopback is the bottle's own.
 */
export function fenceEnv(): Readonly<Record<string, string>> {
  const proxy = `http://127.0.0.1:${PROXY_PORT}`;
  const direct = 'localhost,127.0.0.1,::1';
  return {
    HTTP_PROXY: proxy,
    HTTPS_PROXY: proxy,
    NO_PROXY: direct,
    http_proxy: proxy,
    https_proxy: proxy,
    no_proxy: direct,
    // OpenSSL, Go; curl; Python's requests and pip; AWS; Cargo; Git
    SSL_CERT_FILE: BUNDLE_FILE,
    CURL_CA_BUNDLE: BUNDLE_FILE,
    REQUESTS_CA_BUNDLE: BUNDLE_FILE,
    PIP_CERT: BUNDLE_FILE,
    AWS_CA_BUNDLE: BUNDLE_FILE,
    CARGO_HTTP_CAINFO: BUNDLE_FILE,
    GIT_SSL_CAINFO: BUNDLE_FILE,
    // Both add to what they bring.
    NODE_EXTRA_CA_CERTS: OWN_FILE,
    DENO_CERT: OWN_FILE,
    // Node's own fetch follows the proxy variables only when told.
    NODE_USE_ENV_PROXY: '1',
  };
}

/** The files that {@link fenceEnv} names, and the image's own bundles with our certificate added. */
export async function trustFilesOf(
  certificatePem: string,
  read: (path: string) => Promise<Uint8Array | undefined>,
): Promise<readonly TrustFile[]> {
  const found: TrustFile[] = [];
  let largest = '';
  const contents = await Promise.all(IMAGE_BUNDLES.map(read));
  for (const [index, path] of IMAGE_BUNDLES.entries()) {
    const bytes = contents[index];
    if (bytes === undefined || bytes.length > MOST_BUNDLE_BYTES) continue;
    const text = Buffer.from(bytes).toString('latin1');
    if (!text.includes('-----BEGIN CERTIFICATE-----')) continue;
    found.push(file(path, withOurs(text, certificatePem)));
    if (text.length > largest.length) largest = text;
  }
  // Where an image has none, programs look at the first place all the same.
  if (found.length === 0) found.push(file(IMAGE_BUNDLES[0], certificatePem));
  return [file(OWN_FILE, certificatePem), file(BUNDLE_FILE, withOurs(largest, certificatePem)), ...found];
}

function withOurs(bundle: string, certificatePem: string): string {
  return bundle === '' || bundle.endsWith('\n') ? `${bundle}${certificatePem}` : `${bundle}\n${certificatePem}`;
}

function file(path: string, text: string): TrustFile {
  return { path, content: Buffer.from(text, 'latin1'), mode: 0o644 };
}
