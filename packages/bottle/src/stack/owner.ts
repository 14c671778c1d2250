import { bootId, processNamespace, processStart } from '@decant/core/node';
import { z } from 'zod';

/**
 * A process, so that no other is ever taken for it: its number is used again, but not with its start time in the same
 * boot and process namespace.
 */
export const processIdentitySchema = z.strictObject({
  pid: z.number().int().positive(),
  /** Clock ticks from boot to the start of the process, decimal. */
  start: z.string().regex(/^\d{1,20}$/),
  boot: z.string().regex(/^[0-9a-f-]{1,40}$/),
  /** Inode of the process namespace that the number is valid in. */
  namespace: z.string().regex(/^\d{1,20}$/),
});
export type ProcessIdentity = z.infer<typeof processIdentitySchema>;

/** `unknown`: it belongs to another process namespace of this boot, whose processes cannot be seen from here. */
export type Liveness = 'lives' | 'gone' | 'unknown';

/** Identity of a running process of this namespace; undefined when it has ended. */
export async function identityOf(pid: number): Promise<ProcessIdentity | undefined> {
  const start = await processStart(pid);
  if (start === undefined) return undefined;
  return { pid, start, boot: await bootId(), namespace: await processNamespace() };
}

export async function livenessOf(identity: ProcessIdentity): Promise<Liveness> {
  if (identity.boot !== (await bootId())) return 'gone';
  if (identity.namespace !== (await processNamespace())) return 'unknown';
  return (await processStart(identity.pid)) === identity.start ? 'lives' : 'gone';
}

/** Part of a file name that says whose file it is; read back by {@link livenessOfMark}. */
export function ownerMark(identity: ProcessIdentity): string {
  return [identity.boot.replaceAll('-', ''), identity.namespace, identity.pid, identity.start].join('-');
}

/** Liveness of the process that a mark names; undefined when the text is no mark. */
export async function livenessOfMark(text: string): Promise<Liveness | undefined> {
  const [, boot, namespace, pid, start] = /^([0-9a-f]{32})-(\d{1,20})-(\d{1,10})-(\d{1,20})$/.exec(text) ?? [];
  if (boot === undefined || namespace === undefined || pid === undefined || start === undefined) return undefined;
  const own = await bootId();
  return await livenessOf({ pid: Number(pid), start, boot: own.replaceAll('-', '') === boot ? own : boot, namespace });
}
