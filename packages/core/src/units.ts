import { DecantError } from './errors.ts';
import { quote } from './ids.ts';

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;

/** Bytes of one page: the unit of cuts, blocks and addresses in every image format here. */
export const PAGE_BYTES = 4096;

/** The smallest multiple of `unit` that is at least `value`; both non-negative safe integers. */
export function roundUp(value: number, unit: number): number {
  const rest = value % unit;
  return rest === 0 ? value : value + (unit - rest);
}

/** Bytes for people: `0 B`, `12.3 KiB`, `1.2 GiB`. */
export function formatBytes(bytes: number): string {
  if (bytes < KIB) return `${Math.round(bytes)} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let unit = -1;
  do {
    value /= KIB;
    unit++;
  } while (value >= 1023.95 && unit < units.length - 1);
  return `${value.toFixed(1)} ${units[unit]}`;
}

/** Milliseconds for people: `850 ms`, `12.3 s`, `3 min 05 s`. */
export function formatDuration(milliseconds: number): string {
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 59_950) return `${(milliseconds / 1000).toFixed(1)} s`;
  const seconds = Math.round(milliseconds / 1000);
  return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, '0')} s`;
}

/** Reads `512`, `64K`, `10MiB`, `1.5G` (powers of 1024) into whole bytes. */
export function parseBytes(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:iB|B)?|B)?$/i.exec(text.trim());
  const scale = { k: KIB, m: MIB, g: GIB, t: 1024 * GIB }[match?.[2]?.toLowerCase() ?? ''] ?? 1;
  const bytes = match === null ? Number.NaN : Math.round(Number(match[1]) * scale);
  if (!Number.isSafeInteger(bytes)) {
    throw new DecantError('USAGE', `Not a size: ${quote(text)}.`, {
      hint: 'Write bytes, or a number with K, M, G or T.',
    });
  }
  return bytes;
}
