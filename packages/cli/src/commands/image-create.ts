import { DecantError, formatBytes, formatDuration, MIB, quote, ROOTFS_FORMATS, type RootfsFormat } from '@decant/core';
import { buildSettings, type FilesystemRequest, type ImageResult } from '@decant/sdk';

import { invokeWired } from '../invoke.ts';
import { buildOptionsOf, type EngineOptions } from './build-options.ts';
import type { CommonOptions } from '../options.ts';
import { print, printJson, stdout, type Style } from '../render/terminal.ts';

type Environment = Readonly<Record<string, string | undefined>>;

export interface FormatOptions extends CommonOptions {
  readonly name?: string;
  readonly streaming?: boolean;
  readonly diskMb?: string;
  readonly freeMb?: string;
  readonly label?: string;
  readonly uuid?: string;
  readonly sourceDateEpoch?: string;
  readonly limit?: readonly string[];
}

export interface CreateOptions extends FormatOptions {
  readonly file?: string;
  readonly local?: boolean;
  readonly buildArg?: readonly string[];
  readonly target?: string;
  readonly platform?: string;
  readonly fromImage?: string;
  readonly workspace?: string;
  readonly gitignore?: boolean;
}

export function createAction(context: string | undefined, options: CreateOptions & EngineOptions): Promise<void> {
  return invokeWired(options, async ({ decant, progress, signal }) => {
    const { name, platform } = options;
    const { local, architecture } = buildSettings();
    const wanted = { name, platform, ...filesystemOf(options) };
    const derived = derivationOf(context, options);
    const work = { onEvent: progress.onEvent, signal };
    const result =
      derived === undefined
        ? await decant.images.create(
            {
              ...wanted,
              context: contextOf(context),
              dockerfile: options.file,
              buildArgs: buildArgsOf(options.buildArg),
              target: options.target,
              local: options.local === true || local,
              architecture,
              ...(await buildOptionsOf(options)),
            },
            work,
          )
        : await decant.images.derive({ ...wanted, ...derived }, work);
    progress.end();
    printResult(result, options);
  });
}

/** @throws USAGE when there is neither a context nor a base. */
export function contextOf(context: string | undefined): string {
  if (context !== undefined) return context;
  throw new DecantError('USAGE', 'There is nothing to build.', {
    hint: 'Give the directory with the Dockerfile, or --from-image BASE --workspace DIR.',
  });
}

/** What `--from-image` asks for; undefined without it. @throws USAGE for options that do not go together. */
export function derivationOf(
  context: string | undefined,
  { fromImage, workspace, gitignore, file, buildArg, target }: CreateOptions,
): { readonly base: string; readonly workspace: string; readonly gitignore: boolean } | undefined {
  if (fromImage === undefined) {
    if (workspace === undefined && gitignore === undefined) return undefined;
    throw new DecantError('USAGE', '--workspace and --gitignore go with --from-image.');
  }
  if (context !== undefined || file !== undefined || buildArg !== undefined || target !== undefined) {
    throw new DecantError('USAGE', 'With --from-image nothing is built: it takes no context and no Dockerfile.');
  }
  if (workspace === undefined) {
    throw new DecantError('USAGE', '--from-image needs --workspace.', { hint: 'To take it as it is: image import.' });
  }
  return { base: fromImage, workspace, gitignore: gitignore === true };
}

export function importAction(source: string, options: FormatOptions & { readonly platform?: string }): Promise<void> {
  return invokeWired(options, async ({ decant, progress, signal }) => {
    const result = await decant.images.import(
      {
        source,
        name: options.name,
        ...filesystemOf(options),
        platform: options.platform,
      },
      { onEvent: progress.onEvent, signal },
    );
    progress.end();
    printResult(result, options);
  });
}

/** What to make: what was asked for, else what `DECANT_ROOTFS_FORMAT` says, else ext4. @throws CONFIG_INVALID */
export function formatOf({ streaming }: FormatOptions, env: Environment = process.env): RootfsFormat {
  if (streaming === true) return 'cas-streaming';
  const wanted = env['DECANT_ROOTFS_FORMAT'] ?? '';
  if (wanted === '') return 'ext4';
  const format = ROOTFS_FORMATS.find((known) => known === wanted);
  if (format === undefined) {
    throw new DecantError('CONFIG_INVALID', `DECANT_ROOTFS_FORMAT is ${quote(wanted)}.`, {
      hint: `Set it to one of ${ROOTFS_FORMATS.join(', ')}, or leave it unset.`,
    });
  }
  return format;
}

/** What the options ask of the filesystem. @throws USAGE, CONFIG_INVALID */
export function filesystemOf(options: FormatOptions, env: Environment = process.env): FilesystemRequest {
  const { freeMb, label, uuid } = options;
  const freeBytes = freeMb === undefined ? undefined : mebibytesOf('free room', '--free-mb', freeMb);
  const ext4 =
    freeBytes === undefined && label === undefined && uuid === undefined ? undefined : { freeBytes, label, uuid };
  const sourceDateEpoch = sourceDateEpochOf(options, env);
  const limits = limitsOf(options.limit);
  return { format: formatOf(options, env), diskBytes: diskBytesOf(options), ext4, sourceDateEpoch, limits };
}

/** `NAME=NUMBER` each; which names there are, the SDK knows. @throws USAGE */
function limitsOf(pairs: readonly string[] = []): Readonly<Record<string, number>> {
  const limits: Record<string, number> = {};
  for (const pair of pairs) {
    const [, name, value] = /^([A-Za-z]+)=(\d{1,15})$/.exec(pair) ?? [];
    if (name === undefined) {
      throw new DecantError('USAGE', `Not a limit: ${quote(pair)}.`, { hint: 'Write --limit NAME=NUMBER.' });
    }
    limits[name] = Number(value);
  }
  return limits;
}

/** Bytes of the writable disk asked for, 0 when nothing was said. @throws USAGE */
export function diskBytesOf({ diskMb }: FormatOptions): number {
  return diskMb === undefined ? 0 : mebibytesOf('disk size', '--disk-mb', diskMb);
}

function mebibytesOf(what: string, option: string, text: string): number {
  const mebibytes = /^\d{1,9}$/.test(text) ? Number(text) : 0;
  if (mebibytes < 1 || mebibytes > 16 * 1024 * 1024) {
    throw new DecantError('USAGE', `Not a ${what}: ${quote(text)}.`, {
      hint: `Give ${option} a whole number of MiB from 1 to 16777216.`,
    });
  }
  return mebibytes * MIB;
}

/** The latest time of a file: the option, else `SOURCE_DATE_EPOCH`; undefined when neither is set. */
function sourceDateEpochOf({ sourceDateEpoch }: FormatOptions, env: Environment): number | undefined {
  const text = sourceDateEpoch ?? env['SOURCE_DATE_EPOCH'] ?? '';
  if (sourceDateEpoch === undefined && text === '') return undefined;
  if (/^\d{1,12}$/.test(text)) return Number(text);
  const hint = 'Give whole seconds since 1970, such as the output of: git log -1 --format=%ct';
  throw sourceDateEpoch === undefined
    ? new DecantError('CONFIG_INVALID', `SOURCE_DATE_EPOCH is ${quote(text)}.`, { hint })
    : new DecantError('USAGE', `Not a source date: ${quote(text)}.`, { hint });
}

/** @throws USAGE for what is not `KEY=VALUE` or `KEY`. */
export function buildArgsOf(pairs: readonly string[] = [], env: Environment = process.env): Record<string, string> {
  const args: Record<string, string> = {};
  for (const pair of pairs) {
    const at = pair.indexOf('=');
    const key = at < 0 ? pair : pair.slice(0, at);
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(key)) {
      throw new DecantError('USAGE', `Not a build argument: ${quote(pair)}.`, { hint: 'Write --build-arg KEY=VALUE.' });
    }
    // As docker has it: without a value the one of the environment is taken, and none when that has none.
    const value = at < 0 ? env[key] : pair.slice(at + 1);
    if (value !== undefined) args[key] = value;
  }
  return args;
}

function printResult(result: ImageResult, options: CommonOptions): void {
  if (options.json === true) {
    printJson(result);
    return;
  }
  for (const line of resultLines(result, stdout.style)) print(line);
}

/** The result for people. */
export function resultLines({ image, chunks, bytes, timingsMs }: ImageResult, { bold, dim }: Style): string[] {
  const architecture = image.architecture === null ? '' : `, ${image.architecture}`;
  const { build, layout, upload, admit, total } = timingsMs;
  const uploaded = `uploaded ${formatBytes(bytes.uploaded)}`;
  const stored = `stored ${formatBytes(bytes.stored)}`;
  return [
    `${bold(`${image.name}:${image.tag}`)}  ${image.id}`,
    `  ${formatBytes(image.contentBytes)} of content on a ${formatBytes(image.virtualBytes)} disk, ${image.format}${architecture}`,
    chunks === null
      ? `  ${stored}, ${uploaded}`
      : `  ${chunks.total} chunks: ${chunks.new} new (${formatBytes(bytes.new)}, ${stored}), ${chunks.reused} reused; ${uploaded}`,
    dim(
      `  ${formatDuration(total)}: build ${formatDuration(build)}, layout ${formatDuration(layout)}, ` +
        `upload ${formatDuration(upload)}, admit ${formatDuration(admit)}`,
    ),
  ];
}
