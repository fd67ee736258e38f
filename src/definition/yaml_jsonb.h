/*
 * yaml_jsonb.h
 *	  A tree of the YAML reader as jsonb.
 */
#ifndef TASKER_YAML_JSONB_H
#define TASKER_YAML_JSONB_H

#include "utils/jsonb.h"

#include "yaml_core.h"

extern Jsonb *yaml_node_to_jsonb(const YamlNode *root);

#endif							/* TASKER_YAML_JSONB_H */
