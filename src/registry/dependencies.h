/*
 * dependencies.h
 *	  Keeps the functions that handlers are registered with.
 */
#ifndef TASKER_DEPENDENCIES_H
#define TASKER_DEPENDENCIES_H

extern void tasker_dependencies_init(void);

#endif							/* TASKER_DEPENDENCIES_H */
