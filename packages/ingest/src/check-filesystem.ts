import { PAGE_BYTES, type DecantError } from '@decant/core';
import { isDecantError } from '@decant/core';
import type { Manifest, RandomAccess } from '@decant/cas';
import { runConfinedTool } from '@decant/jail';
import { checkErofs, checkExt4, detectFilesystem } from '@decant/rootfs';

import type { IngestContext } from './admission.ts';
import { refused } from './refuse.ts';

void PAGE_BYTES;
void isDecantError;
export type { DecantError, IngestContext, Manifest, RandomAccess };
export { runConfinedTool, checkErofs, checkExt4, detectFilesystem, refused };
