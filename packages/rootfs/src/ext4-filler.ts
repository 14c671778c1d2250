import { closeSync, ftruncateSync, openSync, truncateSync, writeSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';

import { DecantError, KIB, MIB, PAGE_BYTES } from '@decant/core';

import { IndexedDirectories } from './ext4-indexed.ts';
import { copyExtents, scriptBytes, type Ext4Command, type Staging } from './ext4-script.ts';
import { seedOf, uuidFrom } from './ext4-seed.ts';
import type { WriteExt4Options } from './ext4-write.ts';
import type { Inventory } from './inventory.ts';
import { lastLines, runToolDirectly, type RunTool, type ToolResult } from './run-tool.ts';

/** Spelled out: what newer mkfs.ext4 adds by itself is refused by the kernels of small guests. */
const FEATURES =
  'none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum';
const INODE_BYTES = 256;
const BYTES_PER_INODE = 16_384;
/** mkfs.ext4 and debugfs take this for the present: 2000-01-01. */
const FAKE_TIME = '946684800';
/** Nothing in here, so that nothing of the machine's own configuration counts. */
const MKE2FS_CONFIG = [
  '[defaults]\n\tbase_features = none\n\tblocksize = 4096\n[fs_types]\n',
  ...['floppy', 'small', 'default', 'ext4', 'big', 'huge'].map((type) => `\t${type} = {\n\t\tblocksize = 4096\n\t}\n`),
].join('');
const STAGED_BYTES = 128 * MIB;
const STAGED_FILES = 20_000;
/** What one script may make debugfs print: it repeats every request, and of a tool's output the last MiB is known. */
const PRINTED_BYTES = 768 * KIB;
/** Over the request itself: the prompt and "Allocated inode: N". */
const PRINTED_EXTRA_BYTES = 48;

/** Makes the empty filesystem, then gathers requests into scripts and runs them. Methods answer false when the filesystem is full. */
export class Ext4Filler {
  readonly #outFile: string;
  readonly #folder: string;
  readonly #options: WriteExt4Options;
  readonly #run: RunTool;
  readonly #buffer = new Uint8Array(MIB);
  #commands: Ext4Command[] = [];
  /** Files that wait for the next script, which are named by number, and all that there are. */
  #staged = 0;
  #files = 0;
  #stagedBytes = 0;
  #directory: Ext4Command | undefined;
  #printedBytes = 0;
  #indexed: IndexedDirectories | undefined;

  readonly staging: Staging;

  constructor(outFile: string, folder: string, options: WriteExt4Options) {
    this.#outFile = outFile;
    this.#folder = resolve(folder);
    this.#options = options;
    this.#run = options.runTool ?? runToolDirectly;
    this.staging = {
      latestSeconds: options.sourceDateEpoch,
      indexedBlocks: (directory) => this.#indexed?.blocksOf(directory),
      file: (node) =>
        this.#stage((descriptor) => {
          ftruncateSync(descriptor, node.sizeBytes);
          copyExtents(node, this.#buffer, (bytes, position) => {
            options.signal?.throwIfAborted();
            this.#stagedBytes += bytes.length;
            writeAll(descriptor, bytes, position);
          });
        }),
      value: (bytes) => this.#stage((descriptor) => writeAll(descriptor, bytes, 0)),
    };
  }

  /** Files are emptied and used again script after script: to create one costs much more on a filesystem with many. */
  #stage(fill: (descriptor: number) => void): Promise<string> {
    const name = String(this.#staged);
    const descriptor = openSync(join(this.#folder, name), this.#staged < this.#files ? 'r+' : 'wx', 0o600);
    try {
      fill(descriptor);
    } finally {
      closeSync(descriptor);
    }
    this.#staged++;
    this.#files = Math.max(this.#files, this.#staged);
    return Promise.resolve(name);
  }

  async format(inventory: Inventory, sizeBytes: number): Promise<boolean> {
    const config = join(this.#folder, 'mke2fs.conf');
    await writeFile(config, MKE2FS_CONFIG);
    const { diskBytes, freeBytes = 0, label = '', sourceDateEpoch } = this.#options;
    const seed = seedOf(inventory, { sizeBytes, label, latestSeconds: sourceDateEpoch });
    const own = Math.ceil(inventory.inodes.length * 1.1) + 32;
    const inodes =
      diskBytes === undefined
        ? own + Math.floor(freeBytes / BYTES_PER_INODE)
        : Math.max(own, Math.floor(sizeBytes / BYTES_PER_INODE));
    const extended = `hash_seed=${uuidFrom(seed, 16)},root_owner=0:0,lazy_itable_init=0`;
    const size = [String(sizeBytes / PAGE_BYTES)];
    const numbers = ['-b', String(PAGE_BYTES), '-I', String(INODE_BYTES), '-m', '0', '-N', String(inodes)];
    const names = ['-U', this.#options.uuid ?? uuidFrom(seed, 0), ...(label === '' ? [] : ['-L', label])];
    const args = [
      '-q',
      '-F',
      '-t',
      'ext4',
      ...numbers,
      '-O',
      FEATURES,
      ...names,
      '-E',
      extended,
      this.#outFile,
      ...size,
    ];
    const result = await this.#tool('mkfs.ext4', args, { MKE2FS_CONFIG: config });
    if (result.exitCode === 0) {
      this.#indexed = await IndexedDirectories.plan(inventory, this.#outFile);
      return true;
    }
    if (/not enough space|too (small|big|many inodes)/i.test(lastLines(result))) return false;
    throw failed('mkfs.ext4', result);
  }

  async add(command: Ext4Command): Promise<boolean> {
    if (command.text.startsWith('cd ')) this.#directory = command;
    if (command.direct) {
      if (!(await this.flush())) return false;
      return this.#debugfs(['-R', utf8Of(command.text)], undefined);
    }
    if (this.#commands.length === 0 && this.#directory !== undefined && command !== this.#directory) {
      this.#commands.push(this.#directory);
    }
    this.#commands.push(command);
    this.#printedBytes += command.text.length + PRINTED_EXTRA_BYTES;
    const full =
      this.#stagedBytes >= STAGED_BYTES || this.#staged >= STAGED_FILES || this.#printedBytes >= PRINTED_BYTES;
    return full ? this.flush() : true;
  }

  async flush(): Promise<boolean> {
    if (this.#commands.length === 0) return true;
    const script = join(this.#folder, 'script');
    await writeFile(script, scriptBytes(this.#commands));
    const last = this.#commands.findLast(({ allocates }) => allocates !== undefined);
    const fits = await this.#debugfs(['-f', script], last?.allocates);
    for (let i = 0; i < this.#staged; i++) truncateSync(join(this.#folder, String(i)));
    this.#commands = [];
    this.#staged = 0;
    this.#stagedBytes = 0;
    this.#printedBytes = 0;
    return fits;
  }

  /** Runs what is left, then writes what debugfs does not. */
  async finish(): Promise<boolean> {
    if (!(await this.flush())) return false;
    await this.#indexed?.write(this.#outFile, this.#options.signal);
    return true;
  }

  async #debugfs(request: readonly string[], lastAllocated: number | undefined): Promise<boolean> {
    // It prints without a buffer, several pieces to a request: to a file, so that none of them wakes this process.
    const stdoutFile = join(this.#folder, 'printed');
    const result = await this.#tool('debugfs', ['-w', ...request, this.#outFile], {}, stdoutFile);
    // debugfs ends with status 0 whatever happened; apart from its version, standard error must be empty.
    const complaints = Buffer.from(result.stderr)
      .toString('latin1')
      .replace(/^debugfs \d[^\n]*\n/, '')
      .trim();
    if (/Could not allocate (block|inode)/.test(complaints)) return false;
    if (/No space left on device/.test(complaints))
      throw new DecantError('DISK_FULL', 'The disk with the image is full.');
    if (result.exitCode !== 0 || complaints !== '') throw failed('debugfs', result);
    if (lastAllocated !== undefined) checkAllocated(result, lastAllocated);
    return true;
  }

  #tool(
    name: string,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
    stdoutFile?: string,
  ): Promise<ToolResult> {
    return this.#run(name, args, {
      env: { E2FSPROGS_FAKE_TIME: FAKE_TIME, ...env },
      cwd: this.#folder,
      readable: [this.#folder],
      writable: [this.#outFile],
      stdoutFile,
      signal: this.#options.signal,
    });
  }
}

/**
 * The requests name inodes by the numbers that debugfs is expected to give them, which it takes in ascending order
 * from an empty filesystem: if the last one is right, all are.
 */
function checkAllocated({ stdout }: ToolResult, expected: number): void {
  const printed = Buffer.from(stdout).toString('latin1');
  const marker = 'Allocated inode: ';
  const at = printed.lastIndexOf(`\n${marker}`);
  const number = at < 0 ? undefined : Number.parseInt(printed.slice(at + 1 + marker.length), 10);
  if (number === expected) return;
  throw new DecantError('INTERNAL', `debugfs took inode ${number ?? '(none)'} where ${expected} was expected.`);
}

function failed(tool: string, result: ToolResult): DecantError {
  return new DecantError('PROCESS_FAILED', `${tool} failed: ${lastLines(result)}`, {
    details: { command: tool, exitCode: result.exitCode, lastLines: lastLines(result) },
  });
}

function writeAll(descriptor: number, bytes: Uint8Array, position: number): void {
  for (let done = 0; done < bytes.length;) {
    done += writeSync(descriptor, bytes, done, bytes.length - done, position + done);
  }
}

/** A request for the command line, which Node passes on as UTF-8 only. */
function utf8Of(text: string): string {
  const bytes = Buffer.from(text, 'latin1');
  const decoded = bytes.toString('utf8');
  if (Buffer.from(decoded, 'utf8').equals(bytes)) return decoded;
  throw new DecantError(
    'ROOTFS_UNSUPPORTED',
    `A name or link target has a line end or is very long, and is not UTF-8, which ext4 images cannot have: ${JSON.stringify(decoded.slice(0, 300))}.`,
  );
}
