import { DecantError } from '@decant/core';

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string | undefined;
}

const ALIASES: Readonly<Record<string, string>> = { x86_64: 'amd64', x64: 'amd64', aarch64: 'arm64', armhf: 'arm' };

/** The same platform in OCI's words: `aarch64` is `arm64`, and arm64's variant v8 goes without saying. */
export function normalisePlatform(platform: Platform): Platform {
  const os = platform.os.toLowerCase();
  const name = platform.architecture.toLowerCase();
  const architecture = Object.hasOwn(ALIASES, name) ? ALIASES[name]! : name;
  const variant = platform.variant?.toLowerCase();
  if (variant === undefined || variant === '' || (architecture === 'arm64' && variant === 'v8')) {
    return { os, architecture };
  }
  return { os, architecture, variant };
}

/** Linux on this machine's processor: what is meant when nobody says. */
export function hostPlatform(): Platform {
  return normalisePlatform({ os: 'linux', architecture: process.arch });
}

/** Whether an image for `has` is one for `wanted`; a variant counts only when it is asked for. */
export function matchesPlatform(has: Platform, wanted: Platform): boolean {
  const a = normalisePlatform(has);
  const b = normalisePlatform(wanted);
  return a.os === b.os && a.architecture === b.architecture && (b.variant === undefined || a.variant === b.variant);
}

export function formatPlatform(platform: Platform): string {
  const { os, architecture, variant } = normalisePlatform(platform);
  return variant === undefined ? `${os}/${architecture}` : `${os}/${architecture}/${variant}`;
}

export function platformMissing(wanted: Platform, available: readonly Platform[]): DecantError {
  const there = [...new Set(available.map(formatPlatform))].sort();
  return new DecantError(
    'OCI_PLATFORM_MISSING',
    `The image has nothing for ${formatPlatform(wanted)}; it has ${there.length === 0 ? 'no platform' : there.join(', ')}.`,
    { details: { wanted: formatPlatform(wanted), available: there }, hint: 'Choose one of the platforms it has.' },
  );
}
