import { GIB, isDecantError, KIB, MIB, parseBytes } from '@decant/core';
import { z } from 'zod';

import { parseCidr } from '../net/cidr.ts';
import { parseHostPattern } from '../net/host-pattern.ts';
import { normalPath } from '../net/path.ts';
import { parseResolver } from './resolver.ts';

/*
 * What a manifest of a bottle may say. Every key is optional here, because `extends` may bring it; unknown keys are
 * errors. The vocabulary of routes is that of net/policy.ts.
 */

// oxlint-disable-next-line no-control-regex -- these are what must not be there
const CONTROL = /[\u0000-\u001f\u007f]/;
const NUL = '\0';

/** One line of text. */
const line = (longest: number) =>
  z
    .string()
    .min(1, 'is empty')
    .max(longest, `has more than ${longest} characters`)
    .refine((text) => !CONTROL.test(text), 'holds control characters');

const text = (longest: number) =>
  z
    .string()
    .max(longest, `has more than ${longest} characters`)
    .refine((value) => !value.includes(NUL), 'holds a NUL character');

const absolutePath = line(4096).refine(
  (path) => path.startsWith('/') && !path.split('/').includes('..'),
  'is not an absolute path without ".."',
);

const bytes = (least: number, most: number) =>
  z.union([z.number(), z.string()], 'is not a size such as 512M').transform((value, context) => {
    let size = Number.NaN;
    try {
      size = typeof value === 'number' ? value : parseBytes(value);
    } catch (error) {
      if (!isDecantError(error)) throw error;
    }
    if (!Number.isSafeInteger(size)) {
      context.addIssue({ code: 'custom', message: 'is not a size such as 512M' });
    } else if (size < least || size > most) {
      context.addIssue({ code: 'custom', message: `is not from ${least} to ${most} bytes` });
    }
    return size;
  });

const DURATION_UNITS: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const SHORTEST_MS = 1000;
const LONGEST_MS = 7 * 86_400_000;

const duration = z.string('is not a time such as 30m').transform((value, context) => {
  const [, number, unit = ''] = /^(\d{1,9})(s|m|h|d)$/.exec(value) ?? [];
  const milliseconds = Number(number) * (DURATION_UNITS[unit] ?? Number.NaN);
  if (Number.isNaN(milliseconds)) context.addIssue({ code: 'custom', message: 'is not a time such as 30m, 8h or 2d' });
  else if (milliseconds < SHORTEST_MS || milliseconds > LONGEST_MS) {
    context.addIssue({ code: 'custom', message: 'is not from 1s to 7d' });
  }
  return milliseconds;
});

/** A name of a manifest: the file's name without `.yaml`. */
export const manifestNameSchema = z
  .string()
  .regex(/^[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?$/, 'is not a name of lowercase letters, digits, - and _');

const environmentName = z
  .string()
  .max(256)
  .regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'is not a name of an environment variable')
  .refine((name) => name !== '__proto__', 'is not a name of an environment variable');

/** A value as it stands, or the operator's variable that has it at the launch. */
const environmentValue = z.union(
  [text(32 * KIB), z.strictObject({ from: environmentName })],
  'is neither text (in quotes) nor {from: NAME}',
);

const headerSchema = z.strictObject({
  name: z.string().regex(/^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}$/, 'is no name of a header'),
  value: line(4096),
});

const hostPattern = line(256).refine(
  (host) => parseHostPattern(host) !== undefined,
  'is no plain host name, address or *.NAME',
);
const range = line(64).refine(
  (cidr) => parseCidr(cidr) !== undefined,
  'is not ADDRESS/BITS with zeros behind the bits',
);

const matchSchema = z.strictObject({
  path: z
    .strictObject({
      type: z.enum(['exact', 'prefix']),
      value: line(2048).refine((path) => normalPath(path).type !== 'refused', 'is no plain path'),
    })
    .optional(),
  methods: z
    .array(z.string().regex(/^[A-Z]{1,32}$/, 'is no method in upper case'))
    .min(1, 'is empty')
    .max(32)
    .optional(),
  headers: z.array(headerSchema).min(1, 'is empty').max(32).optional(),
});

const routeSchema = z.strictObject({
  id: line(64).optional(),
  hosts: z.array(hostPattern).min(1, 'is empty').max(256),
  ports: z.array(z.int().min(1).max(65_535)).min(1, 'is empty').max(64).optional(),
  protocol: z.enum(['http', 'tls', 'tcp']).optional(),
  matches: z.array(matchSchema).max(64).optional(),
  privateRanges: z.array(range).max(64).optional(),
});

const mountSchema = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('read-only'), source: absolutePath, target: absolutePath }),
  z.strictObject({ type: z.literal('read-write'), source: absolutePath, target: absolutePath }),
  z.strictObject({ type: z.literal('overlay'), source: absolutePath, target: absolutePath }),
  z.strictObject({ type: z.literal('tmpfs'), target: absolutePath, size: bytes(64 * KIB, 1024 * GIB) }),
]);

const limitsSchema = z.strictObject({
  cpus: z.number().min(0.1).max(1024).optional(),
  memory: bytes(16 * MIB, 16 * 1024 * GIB).optional(),
  processes: z.int().min(4).max(1_000_000).optional(),
  disk: bytes(64 * KIB, 1024 * GIB).optional(),
  wallTime: duration.optional(),
});

const egressSchema = z.strictObject({
  sealed: z.boolean().optional(),
  routes: z.array(routeSchema).max(256).optional(),
  deny: z
    .array(
      line(256).refine(
        (text) => parseCidr(text) !== undefined || parseHostPattern(text) !== undefined,
        'is no host, *.NAME or range',
      ),
    )
    .max(1024)
    .optional(),
  resolvers: z
    .array(line(64).refine((text) => parseResolver(text) !== undefined, 'is no ADDRESS, ADDRESS:PORT or [IPV6]:PORT'))
    .max(8)
    .optional(),
  upstreamCaFile: absolutePath.optional(),
});

const agentSchema = z.strictObject({
  command: z
    .array(text(128 * KIB))
    .min(1, 'is empty')
    .max(1024)
    .optional(),
  prompt: text(128 * KIB).optional(),
  promptMode: z.enum(['argument', 'stdin', 'file']).optional(),
  env: z.record(environmentName, environmentValue).optional(),
  user: line(64).optional(),
  workingDir: absolutePath.optional(),
});

export const manifestSchema = z.strictObject({
  extends: manifestNameSchema.optional(),
  name: line(200).optional(),
  image: line(512)
    .refine((ref) => !ref.startsWith('-'), 'begins with a dash')
    .optional(),
  backend: z.enum(['native', 'docker']).optional(),
  egress: egressSchema.optional(),
  mounts: z.array(mountSchema).max(64).optional(),
  limits: limitsSchema.optional(),
  agent: agentSchema.optional(),
});

/** What one manifest says, sizes in bytes and times in milliseconds. */
export type Manifest = z.infer<typeof manifestSchema>;
export type ManifestRoute = z.infer<typeof routeSchema>;
export type EnvironmentSource = z.infer<typeof environmentValue>;
