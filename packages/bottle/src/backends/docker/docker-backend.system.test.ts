import { findProgram } from '@decant/core/node';
import { probeJail } from '@decant/jail';
import { describe, inject } from 'vitest';

import { backendContract } from '../backend.contract.ts';
import { GUEST_PROGRAMS } from '../guest-tools.contract.ts';
import { dockerBackend } from './docker-backend.ts';

const host = inject('dockerHost');
const programs = await Promise.all(GUEST_PROGRAMS.map(findProgram));
const available = host !== null && (await probeJail()).ok && programs.every((path) => path !== undefined);

describe.skipIf(!available)('[backend:docker] the docker backend', () => {
  backendContract((options) => dockerBackend({ host: host!, ...options }));
});
