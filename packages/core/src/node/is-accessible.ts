import { access, constants } from 'node:fs/promises';

/** Whether there is something at a path that this process may use so: `mode` is of node:fs `constants`; default: that it is there. */
export function isAccessible(path: string, mode: number = constants.F_OK): Promise<boolean> {
  return access(path, mode).then(
    () => true,
    () => false,
  );
}
