import { DecantError, formatBytes, formatDuration, quote, ROOTFS_FORMATS, type RootfsFormat } from '@decant/core';
import type { ImageResult } from '@decant/sdk';

import { invoke, type CommonOptions } from '../command.ts';
import { bold, dim, printJson } from '../render/terminal.ts';

interface FormatOptions extends CommonOptions {
  readonly name?: string;
  readonly streaming?: boolean;
  readonly diskMb?: string;
}

export interface CreateOptions extends FormatOptions {
  readonly file?: string;
  readonly local?: boolean;
  readonly buildArg: readonly string[];
  readonly target?: string;
  readonly platform?: string;
}

export function createAction(context: string, options: CreateOptions): Promise<void> {
  return invoke(options, async ({ decant, progress, signal }) => {
    const result = await decant.images.create(
      {
        context,
        dockerfile: options.file,
        name: options.name,
        format: formatOf(options),
        diskBytes: diskBytesOf(options),
        buildArgs: buildArgsOf(options.buildArg),
        target: options.target,
        platform: options.platform,
      },
      { onEvent: progress.onEvent, signal },
    );
    progress.end();
    printResult(result, options);
  });
}

export function importAction(source: string, options: FormatOptions & { readonly platform?: string }): Promise<void> {
  return invoke(options, async ({ decant, progress, signal }) => {
    const result = await decant.images.import(
      {
        source,
        name: options.name,
        format: formatOf(options),
        diskBytes: diskBytesOf(options),
        platform: options.platform,
      },
      { onEvent: progress.onEvent, signal },
    );
    progress.end();
    printResult(result, options);
  });
}

function formatOf({ streaming }: FormatOptions): RootfsFormat {
  if (streaming === true) return 'cas-streaming';
  const wanted = process.env['DECANT_ROOTFS_FORMAT'] ?? '';
  if (wanted === '') return 'ext4';
  const format = ROOTFS_FORMATS.find((known) => known === wanted);
  if (format === undefined) {
    throw new DecantError('CONFIG_INVALID', `DECANT_ROOTFS_FORMAT is ${quote(wanted)}.`, {
      hint: `Set it to one of ${ROOTFS_FORMATS.join(', ')}, or leave it unset.`,
    });
  }
  return format;
}

function diskBytesOf({ diskMb }: FormatOptions): number {
  if (diskMb === undefined) return 0;
  const mebibytes = Number(diskMb);
  if (!Number.isInteger(mebibytes) || mebibytes < 1 || mebibytes > 16 * 1024 * 1024) {
    throw new DecantError('USAGE', `Not a disk size: ${quote(diskMb)}.`, {
      hint: 'Give --disk-mb a whole number of MiB from 1 to 16777216.',
    });
  }
  return mebibytes * 1024 * 1024;
}

function buildArgsOf(pairs: readonly string[]): Record<string, string> {
  const args: Record<string, string> = {};
  for (const pair of pairs) {
    const at = pair.indexOf('=');
    const key = at < 0 ? pair : pair.slice(0, at);
    if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(key)) {
      throw new DecantError('USAGE', `Not a build argument: ${quote(pair)}.`, { hint: 'Write --build-arg KEY=VALUE.' });
    }
    // As docker has it: without a value the one of the environment is taken, and none when that has none.
    const value = at < 0 ? process.env[key] : pair.slice(at + 1);
    if (value !== undefined) args[key] = value;
  }
  return args;
}

function printResult(result: ImageResult, options: CommonOptions): void {
  if (options.json === true) {
    printJson(result);
    return;
  }
  const { image, chunks, bytes, timingsMs } = result;
  const lines = [
    `${bold(`${image.name}:${image.tag}`)}  ${image.id}`,
    `  ${formatBytes(image.contentBytes)} of content on a ${formatBytes(image.virtualBytes)} disk, ${image.format}${image.architecture === null ? '' : `, ${image.architecture}`}`,
    chunks === null
      ? `  stored ${formatBytes(bytes.stored)}, uploaded ${formatBytes(bytes.uploaded)}`
      : `  ${chunks.total} chunks: ${chunks.new} new (${formatBytes(bytes.new)}, stored ${formatBytes(bytes.stored)}), ${chunks.reused} reused; uploaded ${formatBytes(bytes.uploaded)}`,
    dim(
      `  ${formatDuration(timingsMs.total)}: build ${formatDuration(timingsMs.build)}, layout ${formatDuration(timingsMs.layout)}, upload ${formatDuration(timingsMs.upload)}, admit ${formatDuration(timingsMs.admit)}`,
    ),
  ];
  process.stdout.write(`${lines.join('\n')}\n`);
}
