import { setFlagsFromString } from 'node:v8';

// Layers and chunks pass through as buffers that die young, and V8 gives their memory back when its young generation is
// full. That stays at its first size: an import of 170 MB then takes about 70 MB less memory at its peak, for about 8 %
// more CPU time.
setFlagsFromString('--semi-space-growth-factor=1');
