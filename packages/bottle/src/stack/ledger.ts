import { randomBytes } from 'node:crypto';
import { link, mkdir, open, readdir, rm, type FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';

import { DecantError, errnoOf, quote, toDecantError } from '@decant/core';
import { z } from 'zod';

import type { ResourceClaim } from '../backends/backend.ts';
import { SLUG_ATTEMPTS, slugBase, slugCandidate } from '../plan/slug.ts';
import { identityOf, ownerMark, processIdentitySchema } from './owner.ts';

/*
 * A ledger is the file SLUG.jsonl in the folder of bottles, mode 0600, one JSON object a line:
 *
 *     {"version":1,"slug":…,"id":…,"name":…,"backend":…,"image":…,"owner":{…},"createdAt":…,"endsBy":…}
 *     {"claim":1,"kind":"directory","facts":{"path":"…"}}     written before the acquisition begins, and synced, unless
 *                                                             what it is for does not outlive a crash of the machine
 *     {"note":1,"facts":{"pid":4711}}                         what is known only after it; added to the claim's facts
 *     {"released":1}
 *     {"closed":true}                                         the owner unwound what it could and will not come back
 *
 * It appears with its first line whole, by link(2): the name is claimed and its owner known in one step. The first claim
 * syncs that line as well: a ledger that is empty, after a crash of the machine, has none. A last line without an end was
 * not synced, so that what it announces was not begun. The file goes last of all.
 */
const factsSchema = z.record(z.string().max(64), z.union([z.string().max(8192), z.number()]));
const headerSchema = z.strictObject({
  version: z.literal(1),
  slug: z.string().max(64),
  /** Tells bottles apart that had one slug after another; 16 hexadecimal digits. */
  id: z.string().regex(/^[0-9a-f]{16}$/),
  name: z.string().max(300),
  backend: z.string().max(64),
  image: z.string().max(1024),
  owner: processIdentitySchema,
  /** ISO 8601. */
  createdAt: z.string().max(40),
  /** When the wall time limit ends it, ISO 8601. */
  endsBy: z.string().max(40),
});
export type LedgerHeader = z.infer<typeof headerSchema>;

const lineSchema = z.union([
  z.strictObject({ claim: z.number().int().positive(), kind: z.string().max(64), facts: factsSchema }),
  z.strictObject({ note: z.number().int().positive(), facts: factsSchema }),
  z.strictObject({ released: z.number().int().positive() }),
  z.strictObject({ closed: z.literal(true) }),
]);

export const LEDGER_SUFFIX = '.jsonl';
/** Files that are being made into ledgers: with the mark of their owner, so that what killed owners left goes. */
export const CLAIM_PREFIX = '.claim-';
const MOST_BYTES = 4 * 1024 * 1024;

export interface LedgerOptions {
  /** The folder of bottles; made when it is not there, mode 0700. */
  readonly directory: string;
  /** What a person calls the bottle; its slug is made of it. */
  readonly name: string;
  readonly backend: string;
  readonly image: string;
  readonly wallTimeMs: number;
}

/** The durable list of what a bottle holds outside its own processes. Written by its owner alone. */
export interface Ledger {
  readonly header: LedgerHeader;
  /**
   * Resolves once the claim is on the disk, or with `durable: false` with the kernel, which keeps it when this process is
   * killed; the number is the claim's.
   */
  claim(claim: ResourceClaim, durable: boolean): Promise<number>;
  note(number: number, facts: Readonly<Record<string, string | number>>): Promise<void>;
  released(number: number): Promise<void>;
  /** Ends the writing; the file goes with `remove`, else it stays for the collector. */
  close(outcome: 'remove' | 'keep'): Promise<void>;
}

/**
 * Claims the first free slug for a name and opens its ledger. Safe against other processes that do the same.
 * @throws NAME_INVALID, CONFLICT when all slugs of the name are taken.
 */
export async function claimLedger(options: LedgerOptions): Promise<Ledger> {
  const { directory } = options;
  const base = slugBase(options.name);
  const owner = await identityOf(process.pid);
  if (owner === undefined) throw new DecantError('INTERNAL', 'This process has no identity.');
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const now = Date.now();
  const id = randomBytes(8).toString('hex');
  const draft = join(directory, `${CLAIM_PREFIX}${ownerMark(owner)}.${id}`);
  const taken = new Set(await readdir(directory));
  for (let attempt = 1; attempt <= SLUG_ATTEMPTS; attempt++) {
    const slug = slugCandidate(base, attempt);
    if (taken.has(slug + LEDGER_SUFFIX)) continue;
    const header: LedgerHeader = {
      version: 1,
      slug,
      id,
      name: options.name.slice(0, 300),
      backend: options.backend,
      image: options.image.slice(0, 1024),
      owner,
      createdAt: new Date(now).toISOString(),
      endsBy: new Date(now + options.wallTimeMs).toISOString(),
    };
    const first = Buffer.from(`${JSON.stringify(header)}\n`);
    const handle = await open(draft, 'wx', 0o600);
    try {
      await handle.writeFile(first);
      await link(draft, ledgerPath(directory, slug));
    } catch (error) {
      await handle.close();
      if (errnoOf(error) === 'EEXIST') continue;
      throw toDecantError(error);
    } finally {
      await rm(draft, { force: true });
    }
    return new FileLedger(ledgerPath(directory, slug), header, handle, first.length);
  }
  throw new DecantError('CONFLICT', `There are ${SLUG_ATTEMPTS} bottles named ${quote(base)} already.`, {
    hint: 'Stop some, choose another name, or run: decant bottle gc',
  });
}

export function ledgerPath(directory: string, slug: string): string {
  return join(directory, slug + LEDGER_SUFFIX);
}

interface Batch {
  readonly lines: string[];
  durable: boolean;
  done: Promise<void>;
}

class FileLedger implements Ledger {
  readonly header: LedgerHeader;
  readonly #path: string;
  readonly #file: FileHandle;
  #claims = 0;
  #size: number;
  #batch: Batch | undefined;
  /** The file's name is on the disk. */
  readonly #named: Promise<void>;
  #writing: Promise<void> = Promise.resolve();

  constructor(path: string, header: LedgerHeader, file: FileHandle, size: number) {
    this.#size = size;
    this.#named = syncDirectory(dirname(path));
    this.#named.catch(() => undefined);
    this.#path = path;
    this.header = header;
    this.#file = file;
  }

  async claim({ kind, ...facts }: ResourceClaim, durable: boolean): Promise<number> {
    const number = ++this.#claims;
    await this.#append({ claim: number, kind, facts }, durable);
    return number;
  }

  async note(number: number, facts: Readonly<Record<string, string | number>>): Promise<void> {
    await this.#append({ note: number, facts }, false);
  }

  async released(number: number): Promise<void> {
    // A claim that is reaped once more than needed does no harm.
    await this.#append({ released: number }, false);
  }

  async close(outcome: 'remove' | 'keep'): Promise<void> {
    if (outcome === 'keep') await this.#append({ closed: true }, true);
    else await rm(this.#path, { force: true });
    await this.#named.catch(() => undefined);
    await this.#file.close();
  }

  /** Lines that come while others are being synced go to the disk together. */
  async #append(line: z.input<typeof lineSchema>, durable: boolean): Promise<void> {
    const text = `${JSON.stringify(lineSchema.parse(line))}\n`;
    if (this.#batch === undefined) {
      const batch: Batch = { lines: [], durable: false, done: Promise.resolve() };
      batch.done = this.#writing.then(() => {
        this.#batch = undefined;
        return this.#write(batch);
      });
      this.#writing = batch.done.catch(() => undefined);
      this.#batch = batch;
    }
    this.#batch.lines.push(text);
    this.#batch.durable ||= durable;
    await this.#batch.done;
  }

  async #write({ lines, durable }: Batch): Promise<void> {
    const bytes = Buffer.from(lines.join(''));
    try {
      let written = 0;
      while (written < bytes.length) {
        const at = this.#size + written;
        written += (await this.#file.write(bytes, written, bytes.length - written, at)).bytesWritten;
      }
      if (durable) await Promise.all([this.#file.datasync(), this.#named]);
      this.#size += bytes.length;
    } catch (error) {
      // No part of a line stays before the next one.
      await this.#file.truncate(this.#size).catch(() => undefined);
      throw toDecantError(error);
    }
  }
}

async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

export interface LedgerRecord {
  readonly header: LedgerHeader;
  /** Claims that were not released, in the order they were made. */
  readonly claims: readonly ResourceClaim[];
  /** The owner will not come back, though its process may live on. */
  readonly closed: boolean;
}

/**
 * @returns undefined when there is no such ledger, `empty` when it lost its first line with the power.
 * @throws CONFIG_INVALID with the line at fault when it is broken.
 */
export async function readLedger(directory: string, slug: string): Promise<LedgerRecord | 'empty' | undefined> {
  const path = ledgerPath(directory, slug);
  let text: string;
  try {
    text = await readBounded(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
  const lines = text.split('\n');
  lines.pop();
  const parse = <T>(schema: z.ZodType<T>, line: string, number: number): T => {
    try {
      return schema.parse(JSON.parse(line));
    } catch (error) {
      throw broken(path, `line ${number} cannot be understood`, error);
    }
  };
  const [first, ...rest] = lines;
  if (first === undefined) return 'empty';
  const header = parse(headerSchema, first, 1);
  if (header.slug !== slug) throw broken(path, `it is the ledger of ${quote(header.slug)}`);
  const claims = new Map<number, ResourceClaim>();
  let closed = false;
  rest.forEach((line, index) => {
    const entry = parse(lineSchema, line, index + 2);
    if ('claim' in entry) claims.set(entry.claim, { ...entry.facts, kind: entry.kind });
    else if ('released' in entry) claims.delete(entry.released);
    else if ('closed' in entry) closed = true;
    else {
      const claim = claims.get(entry.note);
      if (claim !== undefined) claims.set(entry.note, { ...entry.facts, ...claim, kind: claim.kind });
    }
  });
  return { header, claims: [...claims.values()], closed };
}

async function readBounded(path: string): Promise<string> {
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    if (size > MOST_BYTES) throw broken(path, `it has more than ${MOST_BYTES} bytes`);
    const bytes = Buffer.alloc(size);
    let filled = 0;
    while (filled < size) {
      const { bytesRead } = await handle.read(bytes, filled, size - filled, filled);
      if (bytesRead === 0) break;
      filled += bytesRead;
    }
    return bytes.subarray(0, filled).toString('utf8');
  } finally {
    await handle.close();
  }
}

function broken(path: string, why: string, cause?: unknown): DecantError {
  return new DecantError('CONFIG_INVALID', `The ledger ${path} is broken: ${why}.`, {
    hint: 'Look at what it names, undo it by hand, and remove the file.',
    ...(cause === undefined ? {} : { cause }),
  });
}
