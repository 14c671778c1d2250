import { DecantError, quote } from '@decant/core';

/** Ids inside the image. */
export interface ImageUser {
  readonly uid: number;
  readonly gid: number;
  /** Supplementary groups, without `gid`, ascending. */
  readonly groups: readonly number[];
  readonly home: string;
}

/** Ids above this are not mapped into a run. */
const HIGHEST_ID = 65_535;

/**
 * Resolves the `User` of an OCI image config: `user`, `uid`, `user:group`, `uid:gid` and mixes of them, as the
 * OCI image specification describes. A number is an id, as docker and runc have it, also when a user or group has it for a
 * name, and need not be in the image's files; a name must be. Without a group
 * the ones of /etc/passwd and /etc/group apply; with one, no supplementary groups.
 * @throws JAIL_FAILED when a name is unknown or a number is above 65,535.
 */
export function resolveUser(spec: string | undefined, passwd: string, group: string): ImageUser {
  const text = spec === undefined || spec === '' ? '0' : spec;
  const colon = text.indexOf(':');
  const userPart = colon < 0 ? text : text.slice(0, colon);
  const groupPart = colon < 0 ? '' : text.slice(colon + 1);
  const users = rows(passwd, 7);
  const groups = rows(group, 4);
  const number = parseId(userPart);
  const row = users.find((fields) => (number === undefined ? fields[0] === userPart : parseId(fields[2]!) === number));
  const uid = number ?? (row === undefined ? undefined : parseId(row[2]!));
  if (uid === undefined) throw unknown('user', userPart, '/etc/passwd');
  const home = row === undefined || row[5] === '' ? '/' : row[5]!;
  if (groupPart !== '') return checked({ uid, gid: resolveGroup(groupPart, groups), groups: [], home });
  const gid = row === undefined ? 0 : (parseId(row[3]!) ?? 0);
  const name = row?.[0];
  const member = groups
    .filter((fields) => name !== undefined && fields[3]!.split(',').includes(name))
    .map((fields) => parseId(fields[2]!))
    .filter((id) => id !== undefined && id !== gid && id <= HIGHEST_ID) as number[];
  return checked({ uid, gid, groups: [...new Set(member)].sort((a, b) => a - b).slice(0, MOST_GROUPS), home });
}

const MOST_GROUPS = 1024;

function resolveGroup(text: string, groups: readonly (readonly string[])[]): number {
  const gid = parseId(text) ?? parseId(groups.find((fields) => fields[0] === text)?.[2] ?? '');
  if (gid === undefined) throw unknown('group', text, '/etc/group');
  return gid;
}

function rows(text: string, fields: number): string[][] {
  return text
    .split('\n')
    .map((line) => line.split(':'))
    .filter((row) => row.length >= fields);
}

function parseId(text: string): number | undefined {
  return /^\d{1,10}$/.test(text) ? Number(text) : undefined;
}

function checked(user: ImageUser): ImageUser {
  if (user.uid > HIGHEST_ID || user.gid > HIGHEST_ID) {
    throw new DecantError(
      'JAIL_FAILED',
      `The image wants user ${user.uid}:${user.gid}, and only ids up to ${HIGHEST_ID} can be run.`,
      { hint: `Set a USER of at most ${HIGHEST_ID} in the Dockerfile.` },
    );
  }
  return user;
}

function unknown(kind: string, name: string, file: string): DecantError {
  return new DecantError('JAIL_FAILED', `The image has no ${kind} ${quote(name)} in its ${file}.`, {
    hint: `Add the ${kind} in the Dockerfile, or set USER to a number.`,
  });
}
