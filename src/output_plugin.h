/*
 * output_plugin.h: the log as a stream of lines, by logical decoding.
 */
#ifndef ES_OUTPUT_PLUGIN_H
#define ES_OUTPUT_PLUGIN_H

extern void EsOutputPluginInit(void);

#endif							/* ES_OUTPUT_PLUGIN_H */
