import { access, constants, mkdir, statfs } from 'node:fs/promises';

import { dockerBackend } from '@decant/bottle';
import { chooseBuilder, detectBuilders, type BuilderDriver, type DetectedBuilder } from '@decant/builder-local';
import { errnoOf, formatBytes, isDecantError } from '@decant/core';
import { findProgram } from '@decant/core/node';
import { probeJail } from '@decant/jail';

import type { DecantPaths } from './paths.ts';

export interface DiagnosisCheck {
  readonly name: string;
  readonly ok: boolean;
  readonly why?: string | undefined;
  readonly mend?: string | undefined;
}

/** What this machine can do, section by section. */
export interface Diagnosis {
  readonly sections: readonly { readonly title: string; readonly checks: readonly DiagnosisCheck[] }[];
}

export async function diagnose(options: {
  readonly paths: DecantPaths;
  readonly signal?: AbortSignal | undefined;
}): Promise<Diagnosis> {
  const { paths, signal } = options;
  const [builders, jail, docker, kvm, home] = await Promise.all([
    detectBuilders({ signal }),
    probeJail({ signal }),
    dockerBackend().probe(signal),
    device('/dev/kvm', 'Enable virtualisation for this machine, or use emulation, which is slow.'),
    dataDirectory(paths.home),
  ]);
  return {
    sections: [
      { title: 'building images', checks: [createCheck(builders), ...builders.map(engineCheck)] },
      { title: 'running images', checks: jail.checks },
      {
        title: 'bottles in Docker',
        checks: [{ name: '--backend docker', ok: docker.usable, why: docker.reasons.join(' ') || undefined }],
      },
      {
        title: 'making and checking filesystems',
        checks: await Promise.all([
          program('fsck.erofs', 'erofs-utils', 'a second opinion on EROFS images'),
          program('mkfs.ext4', 'e2fsprogs', 'needed for ext4 images'),
          program('debugfs', 'e2fsprogs', 'needed for ext4 images'),
          program('e2fsck', 'e2fsprogs', 'needed to admit ext4 images'),
        ]),
      },
      {
        title: 'virtual machines',
        checks: [kvm, await program('qemu-system-x86_64', 'qemu-system-x86', 'boots images')],
      },
      { title: 'storage', checks: [home] },
    ],
  };
}

function engineCheck(builder: DetectedBuilder): DiagnosisCheck {
  return builder.usable
    ? { name: `${builder.name} (${builder.program})`, ok: true, why: abilitiesOf(builder.driver) }
    : { name: `${builder.name} (${builder.program})`, ok: false, why: builder.reason, mend: builder.hint };
}

/** The engine with what it can do, as one line. */
export function abilitiesOf({ engine, capabilities }: Pick<BuilderDriver, 'engine' | 'capabilities'>): string {
  const { architecture, features, networks, cacheModes, secrets, cacheMounts, reproducible, outputs } = capabilities;
  const can = [
    `linux/${architecture}`,
    `network ${networks.join('|')}`,
    `cache ${cacheModes.join('|')}`,
    `output ${outputs.join('|')}`,
    ...(secrets ? ['secrets'] : []),
    ...(cacheMounts ? ['cache mounts'] : []),
    ...(reproducible ? ['reproducible ids'] : []),
    ...(capabilities.skipsUnusedStages ? ['skips unused stages'] : []),
    ...(features.has('heredoc') ? ['here-documents'] : []),
  ];
  return `${engine}: ${can.join(', ')}`;
}

/** What `image create` would build with. */
function createCheck(builders: readonly DetectedBuilder[]): DiagnosisCheck {
  const name = 'decant image create';
  try {
    return { name, ok: true, why: chooseBuilder(builders).why };
  } catch (error) {
    if (!isDecantError(error)) throw error;
    return { name, ok: false, why: error.message, mend: error.hint };
  }
}

async function program(name: string, debian: string, use: string): Promise<DiagnosisCheck> {
  const path = await findProgram(name);
  return path === undefined
    ? { name, ok: false, why: `not installed (${use})`, mend: `On Debian: apt-get install ${debian}` }
    : { name, ok: true, why: path };
}

async function device(path: string, mend: string): Promise<DiagnosisCheck> {
  try {
    await access(path, constants.R_OK | constants.W_OK);
    return { name: path, ok: true };
  } catch (error) {
    return { name: path, ok: false, why: errnoOf(error) === 'ENOENT' ? 'not there' : 'no permission', mend };
  }
}

async function dataDirectory(path: string): Promise<DiagnosisCheck> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 });
    await access(path, constants.W_OK);
    const { bavail, bsize } = await statfs(path);
    return { name: path, ok: true, why: `${formatBytes(bavail * bsize)} free` };
  } catch (error) {
    return {
      name: path,
      ok: false,
      why: `cannot be written (${errnoOf(error) ?? 'unknown'})`,
      mend: 'Point DECANT_HOME at a directory that this user can write to.',
    };
  }
}
