import { createHash, generateKeyPairSync, randomBytes, sign, type KeyObject } from 'node:crypto';
import { isIP } from 'node:net';
import { createSecureContext, type SecureContext } from 'node:tls';

import { parseAddress } from '../net/address.ts';
import {
  bits,
  bitString,
  boolean,
  implicit,
  integer,
  objectId,
  octets,
  sequence,
  set,
  tagged,
  time,
  utf8,
} from './der.ts';

const DAY_MS = 24 * 60 * 60_000;
/** Clocks inside and outside are one, but those of tests and of restored snapshots may lag. */
const BACKDATE_MS = DAY_MS;
const AUTHORITY_DAYS = 365;
const LEAF_DAYS = 30;
/** A leaf is made anew when it has less than this left. */
const RENEW_MS = DAY_MS;

const OID = {
  commonName: '2.5.4.3',
  organisation: '2.5.4.10',
  subjectKeyId: '2.5.29.14',
  keyUsage: '2.5.29.15',
  subjectAltName: '2.5.29.17',
  basicConstraints: '2.5.29.19',
  authorityKeyId: '2.5.29.35',
  extendedKeyUsage: '2.5.29.37',
  serverAuth: '1.3.6.1.5.5.7.3.1',
  ecdsaWithSha256: '1.2.840.10045.4.3.2',
} as const;

interface Leaf {
  readonly context: SecureContext;
  readonly until: number;
}

/**
 * The certificate authority of one bottle (ECDSA P-256, RFC 5280), and the leaf certificates that it signs. Its keys are made here and
 * leave this process in no form.
 */
export class Authority {
  readonly certificatePem: string;
  readonly #key: KeyObject;
  readonly #keyId: Uint8Array;
  readonly #name: Uint8Array;
  readonly #leafPublic: Uint8Array;
  readonly #leafPrivatePem: string;
  readonly #most: number;
  readonly #now: () => number;
  /** In order of use, the one used longest ago first. */
  readonly #leaves = new Map<string, Leaf>();

  constructor(
    options: {
      /** Most leaves that are kept; default 500. */ readonly leaves?: number | undefined;
      readonly now?: (() => number) | undefined;
    } = {},
  ) {
    this.#most = options.leaves ?? 500;
    this.#now = options.now ?? Date.now;
    const own = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    this.#key = own.privateKey;
    // A program that has met another bottle must not take one authority for the other by its name.
    const tag = randomBytes(4).toString('hex');
    this.#name = sequence(
      set(sequence(objectId(OID.organisation), utf8('decant'))),
      set(sequence(objectId(OID.commonName), utf8(`decant bottle ${tag}`))),
    );
    const publicKey = own.publicKey.export({ type: 'spki', format: 'der' });
    this.#keyId = keyIdOf(publicKey);
    this.certificatePem = pemOf(
      this.#sign(this.#name, publicKey, AUTHORITY_DAYS, [
        extension(OID.basicConstraints, true, sequence(boolean(true), integer(Uint8Array.of(0)))),
        // keyCertSign and cRLSign
        extension(OID.keyUsage, true, bits(0b0000_0110, 1)),
        extension(OID.subjectKeyId, false, octets(this.#keyId)),
      ]),
    );
    // One key for all leaves: whoever could read one of them in this process could read all.
    const leaf = generateKeyPairSync('ec', { namedCurve: 'prime256v1' });
    this.#leafPublic = leaf.publicKey.export({ type: 'spki', format: 'der' });
    this.#leafPrivatePem = leaf.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  }

  /** What a TLS server shows as `host`, which is canonical: a name or an address. */
  contextFor(host: string): SecureContext {
    const known = this.#leaves.get(host);
    this.#leaves.delete(host);
    const leaf = known !== undefined && known.until - this.#now() > RENEW_MS ? known : this.#leaf(host);
    this.#leaves.set(host, leaf);
    if (this.#leaves.size > this.#most) {
      const [oldest] = this.#leaves.keys();
      this.#leaves.delete(oldest!);
    }
    return leaf.context;
  }

  #leaf(host: string): Leaf {
    const context = createSecureContext({
      cert: this.leafPem(host),
      key: this.#leafPrivatePem,
      minVersion: 'TLSv1.2',
    });
    return { context, until: this.#now() + LEAF_DAYS * DAY_MS };
  }

  leafPem(host: string): string {
    const name =
      isIP(host) === 0
        ? implicit(2, Buffer.from(host, 'latin1'))
        : implicit(7, parseAddress(host)?.bytes ?? new Uint8Array());
    // A common name has 64 characters at most; programs look at the alternative name anyway.
    const subject = sequence(set(sequence(objectId(OID.commonName), utf8(host.length <= 64 ? host : 'decant bottle'))));
    const certificate = this.#sign(subject, this.#leafPublic, LEAF_DAYS, [
      extension(OID.basicConstraints, true, sequence()),
      // digitalSignature
      extension(OID.keyUsage, true, bits(0b1000_0000, 7)),
      extension(OID.extendedKeyUsage, false, sequence(objectId(OID.serverAuth))),
      extension(OID.subjectAltName, false, sequence(name)),
      extension(OID.subjectKeyId, false, octets(keyIdOf(this.#leafPublic))),
      extension(OID.authorityKeyId, false, sequence(implicit(0, this.#keyId))),
    ]);
    return pemOf(certificate);
  }

  #sign(subject: Uint8Array, publicKey: Uint8Array, days: number, extensions: readonly Uint8Array[]): Uint8Array {
    const algorithm = sequence(objectId(OID.ecdsaWithSha256));
    const serial = randomBytes(16);
    // Not negative and never zero, with 20 bytes at most.
    serial[0] = (serial[0]! & 0x3f) | 0x40;
    const now = this.#now();
    const body = sequence(
      tagged(0, integer(Uint8Array.of(2))),
      integer(serial),
      algorithm,
      this.#name,
      sequence(time(new Date(now - BACKDATE_MS)), time(new Date(now + days * DAY_MS))),
      subject,
      publicKey,
      tagged(3, sequence(...extensions)),
    );
    return sequence(body, algorithm, bitString(sign('sha256', body, this.#key)));
  }
}

function extension(id: string, critical: boolean, value: Uint8Array): Uint8Array {
  return sequence(objectId(id), ...(critical ? [boolean(true)] : []), octets(value));
}

/** RFC 7093, 2, method 1: the first 160 bits of the SHA-256 of the key. */
function keyIdOf(publicKey: Uint8Array): Uint8Array {
  return createHash('sha256').update(publicKey).digest().subarray(0, 20);
}

function pemOf(certificate: Uint8Array): string {
  const lines = Buffer.from(certificate).toString('base64').replace(/.{64}/g, '$&\n').trimEnd();
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
}
