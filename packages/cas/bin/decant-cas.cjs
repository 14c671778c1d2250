#!/usr/bin/env node
// Plain old JavaScript on purpose: it has to run on any Node far enough to say which one is needed.
'use strict';

var parts = process.versions.node.split('.');
var major = Number(parts[0]);
var minor = Number(parts[1]);
var supported = (major === 22 && minor >= 19) || (major === 24 && minor >= 11) || major >= 26;

if (!supported) {
  process.stderr.write(
    'decant-cas needs Node 22.19 or later, 24.11 or later, or 26 and later; this is Node ' +
      process.versions.node +
      '.\n',
  );
  process.exitCode = 1;
} else {
  import('../dist/program.js').catch(function (error) {
    process.stderr.write('decant-cas could not start: ' + (error && error.message ? error.message : error) + '\n');
    process.exitCode = 1;
  });
}
