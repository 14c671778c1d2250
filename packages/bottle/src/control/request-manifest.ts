import { DecantError } from '@decant/core';
import type { z } from 'zod';

import { manifestSchema, type Manifest } from '../manifest/schema.ts';

/** A manifest as it would be written, before sizes and times are read. */
export type ManifestInput = z.input<typeof manifestSchema>;

/** Checks what options of a command line or a program ask for, in the form of a manifest. @throws USAGE */
export function requestManifest(input: ManifestInput): Manifest {
  const parsed = manifestSchema.safeParse(input);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const at = issue?.path.join('.') ?? '';
  throw new DecantError(
    'USAGE',
    `The bottle cannot be as it was asked for: ${at} ${issue?.message ?? 'is not valid'}.`,
    {
      hint: 'docs/bottles.md lists what each field may hold.',
    },
  );
}
