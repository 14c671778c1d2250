import { findProgram } from '@decant/core/node';
import { probeJail } from '@decant/jail';
import { describe } from 'vitest';

import { backendContract } from '../backend.contract.ts';
import { GUEST_PROGRAMS } from '../guest-tools.contract.ts';
import { nativeBackend } from './native-backend.ts';

const programs = await Promise.all(GUEST_PROGRAMS.map(findProgram));
const available = (await probeJail()).ok && programs.every((path) => path !== undefined);

describe.skipIf(!available)('[backend:bubblewrap] the native backend', () => {
  backendContract(nativeBackend);
});
