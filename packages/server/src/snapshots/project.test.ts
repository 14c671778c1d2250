import { parseNamespace } from '@decant/core';
import { describe, expect, it } from 'vitest';

import { isProjectOf, projectIdOf } from './project.ts';

describe('the project of a namespace', () => {
  const acme = parseNamespace('acme');

  it('is known by its id and its name, plain and in base32', () => {
    // printf proj_acme | base32
    for (const id of ['proj_acme', 'acme', 'OBZG62S7MFRW2ZI=', 'obzg62s7mfrw2zi', 'MFRW2ZI=']) {
      expect(isProjectOf(id, acme)).toBe(true);
    }
    expect(projectIdOf(acme)).toBe('proj_acme');
  });

  it('is no other', () => {
    for (const id of ['', 'proj_', 'proj_acme2', 'other', 'NN2GQZLS', '!', '====', 'A'])
      expect(isProjectOf(id, acme)).toBe(false);
  });
});
