// What a handler is given and gives back: a program that imports Sluice needs no other import for it.
@_exported import FastCGI
@_exported import JSON
